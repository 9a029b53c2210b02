"""All commands under one name. Nothing heavy is imported before a command runs."""

from typing import Annotated

import typer

from omnisat_cli.cli.console import say
from omnisat_cli.cli.demo import demo
from omnisat_cli.cli.doctor import doctor
from omnisat_cli.cli.embed import embed
from omnisat_cli.cli.evaluate import evaluate
from omnisat_cli.cli.guard import guarded
from omnisat_cli.cli.inspect import inspect
from omnisat_cli.cli.legend import legend_app
from omnisat_cli.cli.model import model_app
from omnisat_cli.cli.predict import predict
from omnisat_cli.cli.pretrain import pretrain
from omnisat_cli.cli.simulate import simulate
from omnisat_cli.cli.stats import stats
from omnisat_cli.cli.status import status
from omnisat_cli.cli.train import train
from omnisat_cli.cli.vectorize import vectorize
from omnisat_cli.cli.verify import verify

app = typer.Typer(
    name="omnisat",
    help="Map an area with whatever imagery exists: aerial photos, Sentinel-2, Sentinel-1.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from omnisat_cli.outputs.provenance import omnisat_version

        say(f"omnisat {omnisat_version()}")
        raise typer.Exit


@app.callback()
def _root(
    _version_wanted: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Map an area with whatever imagery exists: aerial photos, Sentinel-2, Sentinel-1."""


app.command()(guarded(inspect))
app.command()(guarded(predict))
app.command()(guarded(status))
app.command()(guarded(verify))
app.command()(guarded(vectorize))
app.command()(guarded(stats))
app.add_typer(model_app, name="model")
app.add_typer(legend_app, name="legend")
app.command()(guarded(demo))
app.command()(guarded(simulate))
app.command()(guarded(train))
app.command()(guarded(pretrain))
app.command()(guarded(embed))
app.command()(guarded(evaluate))
app.command()(guarded(doctor))

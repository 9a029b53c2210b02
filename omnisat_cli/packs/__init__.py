"""Model packs: a folder with a card, a legend and weights. Data, no code."""

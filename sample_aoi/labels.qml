<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1">
      <colorPalette>
        <paletteEntry value="0" label="building" color="#d7263d" alpha="255" />
        <paletteEntry value="1" label="road" color="#4a4a4a" alpha="255" />
        <paletteEntry value="2" label="bare or stabilised ground" color="#c8b8a0" alpha="255" />
        <paletteEntry value="3" label="water" color="#2f74c0" alpha="255" />
        <paletteEntry value="4" label="deciduous trees" color="#2e7d32" alpha="255" />
        <paletteEntry value="5" label="coniferous trees" color="#0b4f3c" alpha="255" />
        <paletteEntry value="6" label="grassland" color="#a5d66f" alpha="255" />
        <paletteEntry value="7" label="winter wheat" color="#f2d388" alpha="255" />
        <paletteEntry value="8" label="winter barley" color="#d9a441" alpha="255" />
        <paletteEntry value="9" label="rapeseed" color="#ffe600" alpha="255" />
        <paletteEntry value="10" label="maize" color="#f58220" alpha="255" />
        <paletteEntry value="11" label="sunflower" color="#b5541c" alpha="255" />
        <paletteEntry value="12" label="sugar beet" color="#e57fb2" alpha="255" />
        <paletteEntry value="13" label="vineyard" color="#7b3fa0" alpha="255" />
        <paletteEntry value="14" label="orchard" color="#c9a0dc" alpha="255" />
      </colorPalette>
    </rasterrenderer>
    <rasterresampler maxOversampling="2" />
  </pipe>
  <blendMode>0</blendMode>
</qgis>

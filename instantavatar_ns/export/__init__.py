"""The avatar as a mesh: a skinned, textured and animated GLB, VRM or USDZ, or a posed PLY or OBJ."""

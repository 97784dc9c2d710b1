"""The avatar as a mesh: a skinned, textured and animated GLB, or a posed PLY or OBJ."""

"""The avatar as Gaussian splats: seeded on its surface, fitted to its images, written as glTF and PLY."""

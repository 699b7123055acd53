"""What comes out of training: a folder with a manifest, opened only when it is whole and fits its base."""

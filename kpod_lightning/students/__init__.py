"""Students: presets, loading, LoRA, token losses, export; and the tiny ones that the package ships."""

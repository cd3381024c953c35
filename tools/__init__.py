"""What runs around the plugin: `setup` installs and builds, `demo` shows the main job."""

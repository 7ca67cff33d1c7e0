"""The built-in plugins. Each file is one plugin, enters by an entry point, and can be deleted alone."""

"""The HTTP service: accepts images and reports on their jobs. It never decodes pixels and never loads a model."""

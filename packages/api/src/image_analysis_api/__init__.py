"""The HTTP service: takes images in, answers for jobs; it never decodes pixels and never loads a model."""

"""Models: their manifests, their sources (ModelScope, Hugging Face, folders), proof that they are whole."""

"""What is worked on: projects, their contexts, runs of pipelines, and the artifacts that came of them."""

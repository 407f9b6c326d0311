"""All that talks to Ray besides the pipelines: nodes and resources, bounded waits, progress, throttling."""

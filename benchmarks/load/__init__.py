"""`make bench-load`: what polls and large rollouts cost a server."""

"""The pages of `results/`, written from templates whose numbers come from snapshots.

>>> from analysis.publish.pages import write_pages
>>> write_pages("results", readme="README.md")
"""

"""People label pairs of clips in a browser: store, web app, results, export and import, and a desk for the loop."""

"""Looking inside a model: filters, feature maps, costs. Nothing here changes what it looks at."""

"""What is told of a bundle to people and other tools: transfer sheet, bills of materials, licences, diff."""

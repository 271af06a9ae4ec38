"""Recipes: a strict YAML file in, an adapter out, one readable function a method.

`recipe`, `auto`, `rows`, `progress` and `errors` are light; every other file imports torch inside its functions.
Nothing here decides whether an adapter may serve: that is the gate's and the registry's.
"""

"""The small experiment of every method whose question a recipe cannot ask."""

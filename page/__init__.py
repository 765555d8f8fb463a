"""The page that `fisa-app` serves: a photo, words, and their segments.

- `answers`: what is asked and answered, whatever shows it;
- `downloads`: an answer as files;
- `layout`: how the page looks, and what its parts do.
"""

"""One self-contained HTML page from parts: text, tables, pictures, commands.

The parts are plain data (:mod:`bayesflowmass.page.document`); one module each says what a kind of result
means; `render.render_page` makes HTML of them that needs no network, no script and no second file.
"""

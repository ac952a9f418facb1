"""The page: pictures and plots of a source or an output, and every number behind them, in one HTML file.

``draw`` chooses which images are shown, ``pictures`` reads these, ``plots`` draws the numbers of an inspection, and
``page`` puts all into ``page.html``. The room promises that the page asks nothing of any network, that no text of a
dataset runs or breaks anything in it, and that the same source and options give the same bytes.

Vega-Lite draws the plots, through vl-convert: one wheel without dependencies, where matplotlib needs nine. Its SVG
keeps text as text and takes CSS variables for colours, so that a plot follows light and dark, prints sharply and can
be searched; and a plot is a specification in ``plots.json`` that says what stands where.
"""

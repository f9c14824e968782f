"""The style sheet of the gallery."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1d2126; --faint: #5a616a; --line: #dedbd3; --accent: #1f6685;
  --bar: #5b9ab8; --warn: #9a3412;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131518; --card: #1c1f24; --ink: #e9e7e2; --faint: #a4aab2; --line: #33383f; --accent: #84c5e0;
    --bar: #4d8dab; --warn: #f4a27a;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header, main { max-width: 90rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 3rem); }
header { padding-top: 2.5rem; }
h1 { font-size: clamp(1.6rem, 4vw, 2.4rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 0.4rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; letter-spacing: -0.01em; margin: 3rem 0 0.25rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: 0.25rem 0; max-width: 70ch; }
a { color: var(--accent); text-underline-offset: 0.15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; border-radius: 4px; }
.faint { color: var(--faint); }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: 1rem; top: 1rem; background: var(--card); padding: 0.5rem 1rem; z-index: 2; }
nav { position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line);
  margin-top: 1.5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; max-width: 90rem; margin: 0 auto;
  padding: 0.6rem clamp(1rem, 4vw, 3rem); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem; margin: 1.5rem 0 0;
  padding: 0; }
.tiles > div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 0.75rem 1rem; }
.tiles dt { color: var(--faint); font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.25; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { padding: 0.45rem 0.55rem; text-align: right; white-space: nowrap; }
thead th { color: var(--faint); font-weight: 500; }
th[scope="row"] { text-align: left; font-weight: 600; }
td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tbody tr { border-top: 1px solid var(--line); }
svg.histogram { width: 8rem; height: 2rem; display: block; fill: var(--bar); }
svg.histogram .axis { fill: none; stroke: var(--line); }
svg.histogram .median { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1.25rem;
  margin: 1rem 0 0; padding: 0; list-style: none; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1rem; display: flex;
  flex-direction: column; gap: 0.75rem; min-width: 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: 0.6rem; }
.panels.wide { grid-template-columns: 1fr; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--line); }
figcaption { color: var(--faint); font-size: 0.8rem; margin-top: 0.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 0.15rem 1.1rem; margin: 0; font-variant-numeric: tabular-nums; }
.figures div { display: flex; gap: 0.35rem; align-items: baseline; }
.figures dt { color: var(--faint); font-size: 0.85rem; }
.figures dd { margin: 0; }
.figures .first dd { font-weight: 700; }
.share { display: flex; height: 0.6rem; border-radius: 999px; overflow: hidden; border: 1px solid var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; list-style: none; margin: 0; padding: 0;
  font-size: 0.88rem; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 0.85em; height: 0.85em; border-radius: 3px; border: 1px solid var(--faint);
  margin-right: 0.35em; vertical-align: -0.05em; }
.status, .note { font-size: 0.88rem; }
.note { color: var(--warn); overflow-wrap: anywhere; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem;
  font-size: 0.85rem; }
footer { color: var(--faint); font-size: 0.85rem; padding: 3rem clamp(1rem, 4vw, 3rem) 2rem; max-width: 90rem;
  margin: 0 auto; }
@media print { nav { display: none; } .card { break-inside: avoid; } }
"""

"""The one style sheet of all pages: light, dark, narrow and printed."""

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --sheet: #f6f8fa; --rule: #d0d7de; --link: #0550ae;
  --s0: #0a5ea8; --s1: #b3470b; --s2: #1a7f37; --s3: #8250df; --s4: #6e5a00; --warn: #fff4dc; --warn-rule: #9a6700;
  --shade: #0005; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #a3adb8; --paper: #0d1117; --sheet: #161b22;
  --rule: #3d444d; --link: #79b8ff; --s0: #6cb6ff; --s1: #ffa657; --s2: #57d364; --s3: #d2a8ff; --s4: #e3c64a;
  --warn: #2b2211; --warn-rule: #d4a72c; --shade: #fff5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.25rem clamp(0.9rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.25rem; }
p { max-width: 46rem; margin: 0.5rem 0; }
a { color: var(--link); }
.soft, figcaption, caption, .chart text { color: var(--soft); }
.verdict { font-size: 1.1rem; background: var(--sheet); border-left: 4px solid var(--s0); padding: 0.75rem 1rem;
  max-width: none; }
.verdict.warn { background: var(--warn); border-left-color: var(--warn-rule); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.3rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem 1.5rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 1rem; }
figure { margin: 0.75rem 0; min-width: 0; break-inside: avoid; }
figcaption { font-size: 0.875rem; overflow-wrap: anywhere; }
.pictures figure { background: var(--sheet); border: 1px solid var(--rule); border-radius: 6px; padding: 0.6rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fit, minmax(5.5rem, 1fr)); gap: 0.5rem; }
.sheet figure { margin: 0; max-width: 14rem; } .sheet img { display: block; width: 100%; height: auto; }
.sheets > figure { background: var(--sheet); border: 1px solid var(--rule); border-radius: 6px; padding: 0.6rem; }
.pair { display: flex; gap: 0.4rem; margin-bottom: 0.4rem; }
.pair img { flex: 1 1 0; min-width: 0; max-width: 100%; width: 100%; height: auto; background: #000;
  aspect-ratio: 1; object-fit: contain; }
.scroll { overflow-x: auto; margin: 0.75rem 0; background: linear-gradient(to right, var(--paper) 40%, transparent)
    left / 2.5rem 100% no-repeat local, linear-gradient(to left, var(--paper) 40%, transparent)
    right / 2.5rem 100% no-repeat local, linear-gradient(to right, var(--shade), transparent)
    left / 0.7rem 100% no-repeat scroll, linear-gradient(to left, var(--shade), transparent)
    right / 0.7rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: 0.95rem; }
caption { text-align: left; padding-bottom: 0.3rem; font-size: 0.875rem; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { font-weight: 600; }
.numbers td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.values { display: grid; grid-template-columns: minmax(8rem, max-content) minmax(0, 1fr); gap: 0.1rem 1.25rem;
  font-size: 0.9rem; margin: 0.5rem 0; }
.values dt { color: var(--soft); overflow-wrap: anywhere; } .values dd { margin: 0; overflow-wrap: anywhere; }
.chart { display: block; width: 100%; max-width: 30rem; height: auto; }
.chart text { font: 12px system-ui, sans-serif; fill: var(--soft); }
line.grid { stroke: var(--rule); stroke-width: 0.6; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.band { opacity: 0.18; stroke: none; }
.chance { fill: none; stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; }
.axis { stroke: var(--rule); stroke-width: 2; } .span { stroke-width: 4; opacity: 0.55; }
.whisker { stroke-width: 1.5; }
.bar { width: 10rem; height: 0.9rem; vertical-align: middle; }
.line.s0, .span.s0, .whisker.s0 { stroke: var(--s0); } .band.s0, .dot.s0 { fill: var(--s0); }
.line.s1 { stroke: var(--s1); } .band.s1, .dot.s1 { fill: var(--s1); }
.line.s2 { stroke: var(--s2); } .band.s2, .dot.s2 { fill: var(--s2); }
.line.s3 { stroke: var(--s3); } .band.s3, .dot.s3 { fill: var(--s3); }
.line.s4 { stroke: var(--s4); } .band.s4, .dot.s4 { fill: var(--s4); }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; list-style: none; padding: 0; margin: 0.2rem 0;
  font-size: 0.875rem; }
.legend svg { width: 28px; height: 10px; margin-right: 0.4rem; vertical-align: middle; }
.matrix table { font-size: 0.85rem; }
.matrix td { text-align: center; min-width: 4.5rem; padding: 0.6rem 0.3rem; border: 1px solid var(--rule); }
.finding { border-left: 4px solid var(--rule); padding: 0.1rem 0 0.1rem 1rem; margin: 1rem 0; }
.finding h3 { margin: 0.25rem 0; } .finding ul { font-size: 0.85rem; overflow-wrap: anywhere; padding-left: 1.2rem; }
.finding.error { border-left-color: var(--s1); } .finding.warning { border-left-color: var(--warn-rule); }
.badge { font-size: 0.75rem; text-transform: uppercase; letter-spacing: 0.04em; border: 1px solid currentColor;
  border-radius: 4px; padding: 0.05rem 0.35rem; vertical-align: middle; }
.error .badge { color: var(--s1); } .warning .badge { color: var(--warn-rule); } .note .badge { color: var(--soft); }
.matrix th { padding-right: 0.4rem; overflow-wrap: break-word; }
@media (max-width: 62rem) { .numbers td { white-space: normal; } .bar { width: 7rem; } }
@media (max-width: 44rem) { th, td { padding-right: 0.6rem; } .numbers .bars { display: none; } }
@media (max-width: 34rem) { .stacked thead { position: absolute; clip-path: inset(50%); }
  .stacked, .stacked caption, .stacked tbody { display: block; }
  .stacked tr { display: block; padding: 0.4rem 0; border-bottom: 1px solid var(--rule); }
  .stacked th, .stacked td { display: block; border: 0; padding: 0.1rem 0; overflow-wrap: anywhere; }
  .stacked td:empty { display: none; }
  .stacked td[data-head] { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 0.75rem; }
  .stacked td[data-head]::before { content: attr(data-head); color: var(--soft); overflow-wrap: anywhere; }
  .stacked td.bars[data-head] { display: none; } .values { display: block; } .values dd { margin: 0 0 0.35rem; } }
details { margin: 0.75rem 0; } summary { cursor: pointer; font-weight: 600; padding: 0.3rem 0; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
@media print { :root { --ink: #000; --soft: #444; --paper: #fff; --sheet: #f6f6f6; --rule: #bbb; --s0: #0a5ea8;
    --s1: #b3470b; --s2: #1a7f37; --s3: #8250df; --s4: #6e5a00; --warn: #fff4dc; --warn-rule: #9a6700;
    --shade: transparent; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  figure, table, .finding:not(:has(figure)) { break-inside: avoid; } h2, h3, h3 + p { break-after: avoid; }
  details:not([open]) { display: none; } .scroll { overflow: visible; }
  .numbers td { white-space: normal; } }
"""

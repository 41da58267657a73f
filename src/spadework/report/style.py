"""The report's style sheet: light and dark, phone and print. Colours of series are told apart by all kinds of colour vision."""

from __future__ import annotations

STYLE = """
:root { --ground: #ffffff; --card: #f4f5f7; --ink: #1b1d21; --quiet: #5c636e; --rule: #d9dce1;
        --series-1: #0b6bcb; --series-2: #d9550b; --series-3: #118a5f; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15171a; --card: #1f2226; --ink: #e8eaed; --quiet: #a3abb6; --rule: #3a3f46;
          --series-1: #6cb2ff; --series-2: #ff9a5c; --series-3: #5fd6a6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; } h2 { font-size: 22px; margin: 48px 0 8px; } h3 { font-size: 17px; margin: 28px 0 8px; }
a { color: var(--series-1); } p { margin: 0 0 6px; } .quiet { color: var(--quiet); }
.wide { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 5px; text-align: right; vertical-align: bottom; border-bottom: 1px solid var(--rule); }
th:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; min-width: 120px; }
.mean td, .mean th { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px; margin: 8px 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--series-1); }
figure { margin: 0; } figcaption { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); gap: 16px; margin: 16px 0; }
svg { display: block; width: 100%; height: auto; background: var(--card); border-radius: 8px; }
svg text { fill: var(--ink); font-size: 13px; } .grid { stroke: var(--rule); stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.threshold { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 5 4; }
article { background: var(--card); border-radius: 8px; padding: 12px; margin: 0 0 12px; break-inside: avoid; }
.path { overflow-wrap: anywhere; font-size: 13px; color: var(--quiet); }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 8px; align-items: flex-start; }
.pictures > figure { flex: 0 1 max(230px, 24%); min-width: 0; }
.pictures > figure > img { width: 100%; height: auto; max-height: 420px; object-fit: contain; object-position: left top;
                           border-radius: 4px; display: block; }
.matches { display: flex; flex-wrap: wrap; gap: 12px; flex: 1 1 200px; align-items: flex-start; }
.match { display: flex; flex-wrap: wrap; gap: 6px; align-items: flex-start; }
.match img { max-width: 100%; border-radius: 4px; display: block; } .match p { font-size: 12px; flex-basis: 100%; }
.key { color: var(--quiet); font-size: 13px; } .heat { white-space: nowrap; } .heat img { vertical-align: -1px; border-radius: 2px; }
@media (max-width: 640px) { .pictures > figure { flex-basis: calc(50% - 6px); } }
@media print { body { font-size: 11px; } details { display: none; } }
"""

"""How a report looks: black on white, tables whose digits line up, figures as wide as the page, and a form for paper."""

STYLE = """
:root { --ink: #1b1f24; --soft: #5b6570; --line: #dfe3e8; --ground: #f6f7f9; }
:root { --blue: #0072b2; --green: #00735a; --orange: #9a6200; --red: #b34700; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: #fff; margin: 0; }
main { max-width: 64rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; overflow-wrap: anywhere; }
.lead, .note, figcaption { color: var(--soft); }
.note { font-size: .92em; }
nav { margin: 1.1rem 0 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .92em; }
nav a { color: var(--blue); text-decoration: none; } nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; margin: 1.3rem 0 0; }
.tile { background: var(--ground); border-radius: .4rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: .85em; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93em; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .27rem .8rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; white-space: nowrap; }
thead th { border-bottom: 1.5px solid var(--soft); font-weight: 600; }
th.name, td.name { text-align: left; } td.wide { white-space: normal; max-width: 28rem; text-align: left; overflow-wrap: anywhere; }
td:first-child, th:first-child { padding-left: .2rem; }
tbody tr:hover td { background: var(--ground); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: .5rem 0 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code, pre { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--ground); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; }
.verdict { font-weight: 600; } .passed { color: var(--green); } .noted { color: var(--orange); } .failed { color: var(--red); }
figure { margin: .6rem 0 1.2rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .92em; max-width: 46rem; margin-top: .2rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: .4rem 1.6rem; align-items: start; }
@media print { nav { display: none; } h2, figure, table { break-inside: avoid; } main { padding: 0; max-width: none; } }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } th, td { padding: .25rem .45rem; } }
"""

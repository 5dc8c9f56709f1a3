"""What tests of pages look at, in the browser: faults of a loaded page, each as a list of words; empty if well."""

from __future__ import annotations

_VISIBLE_TEXT = """
const visible = element => {
  for (let e = element; e; e = e.parentElement) {
    const s = getComputedStyle(e);
    if (s.display === 'none' || s.visibility !== 'visible' || s.opacity === '0') return false;
    const folded = e.parentElement instanceof HTMLDetailsElement && !e.parentElement.open;
    if (folded && e.tagName !== 'SUMMARY') return false;
  }
  return true;
};
const scroller = element => {
  for (let e = element; e && e !== document.body && e !== document.documentElement; e = e.parentElement) {
    const s = getComputedStyle(e);
    if (/auto|scroll/.test(s.overflowX) && e.scrollWidth > e.clientWidth) return e;
  }
  return null;
};
const texts = () => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.data.trim() || !visible(node.parentElement)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      const box = {left: r.left, right: r.right, top: r.top + scrollY, bottom: r.bottom + scrollY};
      const words = node.data.trim().slice(0, 40);
      if (box.right - box.left > 1 && box.bottom - box.top > 1) found.push({node, box, words});
    }
  }
  return found;
};
"""


def _script(body: str) -> str:
    return f"(() => {{ {_VISIBLE_TEXT} {body} }})()"


MISSING_IMAGES = _script("""
  const missing = [...document.images].filter(i => !i.complete || i.naturalWidth === 0);
  return missing.map(i => i.alt || i.src.slice(0, 60));
""")
"""Images that did not load."""

SIDEWAYS = _script("""
  const wide = document.documentElement.scrollWidth - innerWidth;
  return wide > 0 ? [`the page is ${wide} px wider than the window`] : [];
""")
"""Horizontal scrolling of the page."""

OVERLAPS = _script("""
  const all = texts(), faults = [];
  for (const t of all) {
    const area = scroller(t.node.parentElement);
    if (!area) continue;
    const r = area.getBoundingClientRect();
    t.box.left = Math.max(t.box.left, r.left); t.box.right = Math.min(t.box.right, r.right);
  }
  const shown = all.filter(t => t.box.right - t.box.left > 1 && t.box.left > -900);
  shown.sort((a, b) => a.box.top - b.box.top);
  for (let i = 0; i < shown.length; i++) for (let j = i + 1; j < shown.length; j++) {
    const a = shown[i], b = shown[j];
    if (b.box.top > a.box.bottom) break;
    if (a.node === b.node) continue;
    const width = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
    const height = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
    // Lines of text set tightly share a few pixels of their leading, not more.
    if (width > 1 && height > 0.35 * Math.min(a.box.bottom - a.box.top, b.box.bottom - b.box.top))
      faults.push(`${a.words} / ${b.words}`);
  }
  return faults;
""")
"""Texts that lie on each other."""

CUT = _script("""
  const faults = new Set();
  for (const t of texts()) {
    const area = scroller(t.node.parentElement);
    if (area) { if (area.tabIndex < 0) faults.add(`not reachable by keyboard: ${t.words}`); continue; }
    const off = t.box.right > innerWidth + 1 || t.box.left < -1;
    if (off && t.box.left > -900) faults.add(`off the page: ${t.words}`);
    for (let e = t.node.parentElement; e && e !== document.body; e = e.parentElement) {
      const s = getComputedStyle(e), r = e.getBoundingClientRect();
      const beyond = t.box.right > r.right + 1 || t.box.left < r.left - 1;
      if (/hidden|clip/.test(s.overflowX) && beyond) faults.add(`cut: ${t.words}`);
    }
  }
  return [...faults];
""")
"""Texts beyond the edge of the window or of their box, without a way to scroll to them."""

HEADINGS = _script("""
  const levels = [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => [+h.tagName[1], h.textContent.trim()]);
  const faults = levels.filter(([l]) => l === 1).length === 1 ? [] : ['not one h1'];
  levels.forEach(([l, words], i) => {
    if (l > (i ? levels[i - 1][0] : 0) + 1) faults.push(`skips a level: ${words}`);
  });
  return faults;
""")
"""Order of headings."""

NAMES = _script("""
  const faults = [];
  for (const i of document.images) if (!i.alt.trim()) faults.push('image without alt');
  for (const e of document.querySelectorAll('[role=region],nav')) {
    const id = e.getAttribute('aria-labelledby');
    const label = e.getAttribute('aria-label') || (id && document.getElementById(id)?.textContent) || '';
    if (!label.trim()) faults.push(`${e.tagName} without a name`);
  }
  for (const t of document.querySelectorAll('table')) {
    if (!t.caption?.textContent.trim()) faults.push('table without caption');
    if (t.querySelector('th:not([scope])')) faults.push('th without scope');
    const named = [...t.tBodies[0].rows].every(r => r.cells[0].tagName === 'TH');
    if (!t.querySelector('thead th') || !named) faults.push('table without headers');
  }
  for (const name of ['header', 'nav', 'main', 'footer'])
    if (document.querySelectorAll(name).length !== 1) faults.push(`not one ${name}`);
  if (!document.documentElement.lang) faults.push('no lang');
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size !== ids.length) faults.push('an id is used twice');
  for (const a of document.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(a.hash.slice(1))) faults.push(`link to nowhere: ${a.hash}`);
  return faults;
""")
"""Names that assistive technology needs: of images, regions, tables, landmarks."""

CONTRAST = _script("""
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const ground = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const luminance = c => .2126 * linear(c[0] / 255) + .7152 * linear(c[1] / 255) + .0722 * linear(c[2] / 255);
  const faults = new Map();
  for (const t of texts()) {
    const e = t.node.parentElement, s = getComputedStyle(e), back = ground(e), front = over(parse(s.color), back);
    const [low, high] = [luminance(front), luminance(back)].sort((x, y) => x - y);
    const ratio = (high + .05) / (low + .05);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && +s.fontWeight >= 700);
    const colours = `${s.color} on ${back.map(Math.round)}`;
    if (ratio < (large ? 3 : 4.5)) faults.set(colours, `${ratio.toFixed(2)}: ${t.words}`);
  }
  return [...faults].map(([colours, words]) => `${colours} ${words}`);
""")
"""Texts whose contrast is below that of WCAG 2 AA: 4.5, or 3 for large ones."""

LAYOUT = {"missing images": MISSING_IMAGES, "scrolls sideways": SIDEWAYS, "overlaps": OVERLAPS, "cut": CUT}
"""What must hold at every width."""

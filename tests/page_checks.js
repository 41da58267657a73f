// What the tests of the page look at in the browser. Each function returns what is wrong, as texts.

// Text and what lies under it, as WCAG 2 has it. Text over pictures is left to the eye.
function contrast() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (colour) => colour.slice(0, 3).reduce((sum, value, i) => sum + linear(value / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, under) => top.slice(0, 3).map((value, i) => (value * top[3]) / 255 + under[i] * (1 - top[3] / 255));
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.unshift(rgb(getComputedStyle(one).backgroundColor));
    return layers.reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest(".only-heard, .overlay, noscript, button:disabled, .skip, kbd")) continue;
    const style = getComputedStyle(element);
    const under = ground(element);
    const [a, b] = [light(over(rgb(element.closest("svg") ? style.fill : style.color), under)), light(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) found.add(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...found];
}

// Controls without a name or too small, pictures without a text, what sticks out of the window, lies over another or is cut off.
function layout() {
  const found = new Set();
  const main = document.getElementById("main");
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 0 && !e.closest(".only-heard, .skip");
  const name = (e) => (e.getAttribute("aria-label") || e.textContent || e.title || "").trim() || [...(e.labels ?? [])].map((l) => l.textContent).join("");
  const rolls = (e) => /auto|scroll/.test(getComputedStyle(e).overflow) && (e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight);
  const scrolled = (e) => {
    for (let p = e.parentElement; p && p !== main; p = p.parentElement) if (rolls(p)) return true;
    return false;
  };
  const controls = [...document.querySelectorAll("button, a, select, input")].filter(shown);
  for (const e of controls) {
    const box = e.getBoundingClientRect();
    const inText = e.matches("p a, dd a, td a, .crumbs a, .check input");
    if (!name(e)) found.add(`no name: ${e.className} ${e.id}`);
    if (!inText && (box.width < 24 || box.height < 24)) found.add(`small: ${name(e)} ${box.width} x ${box.height}`);
    if (!scrolled(e) && (box.left < -1 || box.right > innerWidth + 1)) found.add(`out of sight: ${name(e)}`);
  }
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) found.add("a picture without a text");
  if (document.documentElement.scrollWidth > innerWidth) found.add(`wide: ${document.documentElement.scrollWidth}`);
  if (main.scrollWidth > main.clientWidth) found.add(`wide: ${main.scrollWidth} in ${main.clientWidth}`);
  const placed = controls.filter((e) => !scrolled(e) && !e.closest("#tabs, #toasts") && !e.matches(".slider *"));
  placed.forEach((a, place) => {
    for (const b of placed.slice(place + 1)) {
      if (a.contains(b) || b.contains(a)) continue;
      const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const tall = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 2 && tall > 2) found.add(`over each other: ${name(a)} / ${name(b)}`);
    }
  });
  for (const e of document.querySelectorAll("button, .verdict .word, h1, h2, .connection, .figures")) {
    const style = getComputedStyle(e);
    const cut = e.scrollWidth > e.clientWidth + 1 && style.textOverflow !== "ellipsis" && style.display !== "inline";
    if (shown(e) && cut) found.add(`cut: ${name(e)}`);
  }
  return [...found];
}

() => {
  const found = new Set(), lines = (range) => new Set([...range.getClientRects()].filter((r) => r.width).map((r) => Math.round(r.top)));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode());) {
    if (!text.parentElement || text.parentElement.closest("script, style, svg")) continue;
    for (const word of text.data.matchAll(/[^\s\-–\/]{1,24}(?![^\s\-–\/])/g)) {
      if (word.index && /[^\s\-–\/]/.test(text.data[word.index - 1])) continue; // the end of a longer word
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (lines(range).size > 1) found.add(`${word[0]} is broken`);
    }
  }
  for (const element of document.querySelectorAll("body *:not(svg *)")) {
    if (element.getBoundingClientRect().right > innerWidth + 1 && !element.closest(".scroll")) found.add(`${element.outerHTML.slice(0, 80)} leaves the page`);
  }
  for (const svg of document.querySelectorAll("[data-chart] svg")) {
    const name = svg.closest("[data-chart]").dataset.chart, edges = svg.getBoundingClientRect();
    for (const mark of svg.querySelectorAll("text, line, path, rect, circle, image")) {
      const box = mark.getBoundingClientRect();
      if ((box.width || box.height) && !mark.closest("[clip-path]") && (box.left < edges.left - 1 || box.right > edges.right + 1 || box.top < edges.top - 1 || box.bottom > edges.bottom + 1)) found.add(`${name}: ${mark.tagName} ${mark.textContent} leaves the chart`);
    }
    const labels = [...svg.querySelectorAll("text")].filter((label) => label.textContent.trim());
    labels.forEach((label, at) => labels.slice(at + 1).forEach((other) => {
      const a = label.getBoundingClientRect(), b = other.getBoundingClientRect();
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3) found.add(`${name}: ${label.textContent} covers ${other.textContent}`);
    }));
  }
  return [...found];
}

// Keeps pages fresh and follows runs. Every page is complete without it.
(() => {
  "use strict";
  const main = () => document.getElementById("main");
  const banner = document.getElementById("unanswered");
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  const dress = (root) => {
    for (const time of all("time[datetime]", root)) {
      const at = new Date(time.dateTime);
      if (!isNaN(at)) time.title += " (" + at.toLocaleString() + " here)";
    }
    for (const button of all("button.copy", root)) button.hidden = !navigator.clipboard;
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest && event.target.closest("button.copy");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });

  // Nothing that somebody is about to do may be lost: a focus, a half-typed word, a choice, a marked text.
  const isInUse = () => {
    if (main().querySelector(":focus") || String(document.getSelection())) return true;
    return all("input, textarea, option", main()).some((field) =>
      field.matches("option") ? field.selected !== field.defaultSelected && field.parentNode.selectedIndex > 0
        : field.type === "radio" ? field.checked !== field.defaultChecked
          : field.value !== field.defaultValue);
  };

  const refresh = async () => {
    if (document.hidden || isInUse()) return;
    try {
      const answer = await fetch(location.href, { redirect: "manual" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main");
      if (!fresh || isInUse()) return;
      const open = new Set(all("details[open][id]", main()).map((one) => one.id));
      for (const one of all("details[id]", fresh)) one.open = one.open || open.has(one.id);
      dress(fresh);
      main().replaceWith(document.importNode(fresh, true));
      document.title = page.title;
      banner.hidden = true;
    } catch (error) { banner.hidden = false; }
  };

  const follow = (link) => {
    const source = new EventSource(link);
    const fill = (name, text) => all('[data-live="' + name + '"]').forEach((one) => { one.textContent = text; });
    const size = (count) => {
      const step = count > 0 ? Math.min(4, Math.floor(Math.log2(count) / 10)) : 0;
      return (count / 1024 ** step).toFixed(step ? 1 : 0) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][step];
    };
    source.addEventListener("progress", (event) => {
      const run = JSON.parse(event.data);
      fill("phase", run.state === "queued" ? "waits for its turn" : run.phase);
      fill("done", size(run.done_bytes));
      fill("rate", size(run.bytes_per_second) + "/s");
      fill("table", run.table || "–");
      for (const bar of run.total_bytes ? all('[data-live="progress"]') : []) {
        bar.max = run.total_bytes;
        bar.value = Math.min(run.done_bytes, run.total_bytes);
      }
      for (const list of all('[data-live="lines"]')) {
        for (const line of run.lines.filter((one) => one.sequence > Number(list.dataset.last))) {
          list.appendChild(document.createElement("li")).textContent = line.at.slice(11, 19) + "Z " + line.text;
          list.dataset.last = line.sequence;
        }
      }
    });
    source.addEventListener("done", () => { source.close(); location.reload(); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000); };
  };

  dress(document);
  if (main().dataset.events) follow(main().dataset.events);
  if (main().dataset.refresh) setInterval(refresh, Number(main().dataset.refresh) * 1000);
})();

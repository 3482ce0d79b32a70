(() => {
  const said = document.getElementById("live");
  const ask = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      if (answer.ok && version !== said.dataset.version) return location.reload();
      said.textContent = "Live: redrawn when records change.";
    } catch {
      said.textContent = "The server has ended; this is the last page that it drew.";
    }
    setTimeout(ask, 1000 * said.dataset.every);
  };
  setTimeout(ask, 1000 * said.dataset.every);
})();

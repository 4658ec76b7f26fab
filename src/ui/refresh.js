"use strict";
// Renews what stands in <main> and the title; what has not changed is not touched, and a lost server is said.
const renew = async () => {
  const main = document.querySelector("main"), lost = document.getElementById("lost");
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (fresh.innerHTML !== main.innerHTML && document.getSelection().isCollapsed) main.replaceChildren(...fresh.childNodes);
    document.title = page.title;
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  }
};
setInterval(() => { if (!document.hidden) renew(); }, 5000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) renew(); });

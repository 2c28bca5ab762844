// Keeps pages that follow something up to date. Every page works without it.
//
// The page's element with data-follow names an event stream: a JSON text a line, an empty line
// now and then. At each event, and now and then while a job runs, the page is fetched again and
// its parts marked data-live are replaced, so that the server alone decides how things look.
"use strict";

(() => {
  const AGAIN_MS = 1000;      // no more than one refresh in this time
  const OUTPUT_MS = 3000;     // output grows without events
  const RETRY_MAX_MS = 30000; // longest pause before the stream is opened again
  const LIVE = { "X-XOS-Live": "1" };

  // A form is sent once.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) {
      event.preventDefault();
    }
    form.dataset.sent = "yes";
  });
  // A page that comes back from the browser's store may send its forms again.
  addEventListener("pageshow", () => {
    for (const form of document.forms) {
      delete form.dataset.sent;
    }
  });

  const followed = document.querySelector("[data-follow]");
  if (!followed) {
    return;
  }
  const state = document.querySelector("[data-over]");
  let over = state !== null && state.dataset.over === "true";
  let busy = false;
  let wanted = false;
  let last = 0;

  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  function replace(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === part.innerHTML) {
        continue;
      }
      const pre = part.querySelector("pre");
      const atEnd = pre && pre.scrollHeight - pre.scrollTop - pre.clientHeight < 8;
      const top = pre ? pre.scrollTop : 0;
      part.replaceChildren(...document.adoptNode(next).childNodes);
      const now = part.querySelector("pre");
      if (now) {
        now.scrollTop = atEnd ? now.scrollHeight : top;
      }
    }
    const next = fresh.querySelector("[data-over]");
    if (next) {
      over = next.dataset.over === "true";
    }
  }

  async function refresh() {
    wanted = true;
    if (busy) {
      return;
    }
    busy = true;
    while (wanted) {
      await wait(Math.max(0, last + AGAIN_MS - Date.now()));
      wanted = false;
      last = Date.now();
      try {
        const answer = await fetch(location.href, { headers: LIVE, redirect: "error" });
        if (answer.status === 401) {
          location.reload();
          return;
        }
        if (answer.ok) {
          replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        }
      } catch (e) {
        // The core cannot be reached now: the stream's own retry comes back here.
      }
    }
    busy = false;
  }

  async function lines(body, take) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        return;
      }
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part !== "") {
          take(JSON.parse(part));
        }
      }
    }
  }

  async function follow() {
    let pause = AGAIN_MS;
    let seq = state ? state.dataset.seq : "";
    while (!over) {
      try {
        const url = followed.dataset.follow + (seq ? "?after=" + encodeURIComponent(seq) : "");
        const answer = await fetch(url, { headers: LIVE, redirect: "error" });
        if (answer.status === 401) {
          location.reload();
          return;
        }
        if (answer.ok) {
          pause = AGAIN_MS;
          await lines(answer.body, (event) => {
            if (event.seq) {
              seq = event.seq;
            }
            over = over || event.over === true;
            refresh();
          });
        }
      } catch (e) {
        // As above: tried again after a pause.
      }
      await wait(pause);
      pause = Math.min(pause * 2, RETRY_MAX_MS);
    }
    // What came between the last refresh and the end.
    refresh();
  }

  async function output() {
    while (!over) {
      await wait(OUTPUT_MS);
      if (!document.hidden && document.querySelector("pre, [id^=live-std]")) {
        refresh();
      }
    }
  }

  follow();
  output();
})();

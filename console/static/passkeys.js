// Asks the person's device for a passkey and sends its answer by the page's form. What is asked
// for, and whether the answer is right, is the core's to say (WebAuthn level 2, 5.1).
"use strict";

(() => {
  const form = document.querySelector("form[data-passkey]");
  const trouble = document.getElementById("passkey-trouble");
  if (!form || !trouble) {
    return;
  }
  let busy = false;

  function bytes(text) {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (c) => c.charCodeAt(0));
  }

  function text(buffer) {
    const plain = btoa(String.fromCharCode(...new Uint8Array(buffer)));
    return plain.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  const withId = (key) => ({ ...key, id: bytes(key.id) });

  async function create(options) {
    options.user.id = bytes(options.user.id);
    options.excludeCredentials = (options.excludeCredentials || []).map(withId);
    const made = await navigator.credentials.create({ publicKey: options });
    const transports = made.response.getTransports ? made.response.getTransports() : [];
    const object = text(made.response.attestationObject);
    return [made, { attestationObject: object, transports }];
  }

  async function get(options) {
    options.allowCredentials = (options.allowCredentials || []).map(withId);
    const used = await navigator.credentials.get({ publicKey: options });
    const { authenticatorData, signature, userHandle } = used.response;
    return [used, {
      authenticatorData: text(authenticatorData),
      signature: text(signature),
      userHandle: userHandle ? text(userHandle) : null,
    }];
  }

  async function answer() {
    const options = JSON.parse(form.dataset.options);
    options.challenge = bytes(options.challenge);
    const ask = form.dataset.passkey === "create" ? create : get;
    const [key, response] = await ask(options);
    response.clientDataJSON = text(key.response.clientDataJSON);
    return { id: key.id, rawId: text(key.rawId), type: key.type, response, extensions: {} };
  }

  function say(error) {
    const known = {
      NotAllowedError: "Nothing was done: it was declined, or took too long. Try again.",
      InvalidStateError: "Your device has a passkey of yours for this site already.",
      SecurityError: "This site's passkeys cannot be used at this address.",
    };
    trouble.textContent = known[error.name] || "Your browser cannot use passkeys here.";
    trouble.hidden = false;
  }

  // The form goes once, with the answer; before, it may be tried again.
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    if (busy) {
      return;
    }
    busy = true;
    trouble.hidden = true;
    try {
      form.elements.credential.value = JSON.stringify(await answer());
      form.submit();
    } catch (error) {
      say(error);
      busy = false;
    }
  });

  // A page that comes back from the browser's store is over: its question was answered.
  addEventListener("pageshow", (event) => {
    if (event.persisted) {
      location.replace(form.querySelector("a").href);
    }
  });
})();

// The address that the first start prints carries the token behind a #, so that no log holds it.
"use strict";
const form = document.getElementById("sign-in");
const field = form && form.elements.namedItem("token");
if (field && location.hash.length > 1) {
  field.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  form.requestSubmit();
}

// The address that the first start prints has the token or code after a #, so that no log contains it.
"use strict";
const field = document.querySelector("input[name=token], input[name=code]");
if (field && location.hash.length > 1) {
  field.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  if (field.name === "token") field.form.requestSubmit();
}

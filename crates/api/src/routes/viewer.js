"use strict";
// `/api?v9` shows that version, `/api` the newest.
const version = /^\?v[0-9]{1,2}$/.test(location.search) ? `/${location.search.slice(1)}` : "";
SwaggerUIBundle({
  url: `${version}/api/openapi.json`,
  dom_id: "#viewer",
  docExpansion: "none",
  validatorUrl: null,
});

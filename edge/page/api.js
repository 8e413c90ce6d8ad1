// The REST interface, read off the edge's OpenAPI document. Everything is set as text: nothing of the document is
// taken for markup.

import { element } from "./view.js";

const METHODS = ["get", "put", "post", "patch", "delete", "head", "options", "trace"];
const $ = (id) => document.getElementById(id);
const slug = (text) => text.replaceAll(/[^A-Za-z0-9]+/g, "-").replaceAll(/^-|-$/g, "");

/** Every operation of the document: what it says, with its method, path and anchor. */
function operationsOf({ paths = {} }) {
  return Object.entries(paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => {
      const operation = item[method];
      const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])];
      return { ...operation, parameters, method, path, anchor: slug(`${method} ${path}`), tag: operation.tags?.[0] ?? "other" };
    }),
  );
}

/** A schema in words, with a link where it is one that has a name. */
function words(schema) {
  if (schema === undefined || schema === true) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [element("a", { href: `#schema-${slug(name)}` }, name)];
  }
  const choice = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choice) return choice.flatMap((one, at) => (at ? [schema.allOf ? " and " : " or ", ...words(one)] : words(one)));
  if ("const" in schema) return [element("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((one, at) => [at ? " or " : "", element("code", {}, JSON.stringify(one))]);
  const types = [schema.type ?? (schema.properties ? "object" : "anything")].flat();
  return types.flatMap((type, at) => [at ? " or " : "", ...(type === "array" ? ["list of ", ...words(schema.items)] : [type])]);
}

/** What else a schema asks for. */
function limits(schema = {}) {
  const said = [];
  const add = (text, value) => value !== undefined && said.push(`${text} ${value}`);
  add("", schema.format);
  add("at least", schema.minimum);
  add("more than", schema.exclusiveMinimum);
  add("at most", schema.maximum);
  add("at least, in length,", schema.minLength);
  add("at most, in length,", schema.maxLength);
  add("matches", schema.pattern);
  if (schema.default !== undefined && schema.default !== null) add("default", JSON.stringify(schema.default));
  for (const one of schema.oneOf ?? schema.anyOf ?? []) said.push(...limits(one));
  return [...new Set(said.map((text) => text.trim()))];
}

function table(caption, columns, rows) {
  const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column)));
  const body = rows.map(([first, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, first), ...cells.map((cell) => element("td", {}, ...[cell].flat()))),
  );
  return element("table", { "aria-label": caption }, element("thead", {}, head), element("tbody", {}, ...body));
}

function notes(description, schema, ...more) {
  return [...more, description ?? "", ...limits(schema)].filter(Boolean).join("; ");
}

/** The rows of an object's fields. */
function fields({ properties = {}, required = [] }) {
  return Object.entries(properties).map(([name, schema]) => [
    name,
    words(schema),
    required.includes(name) ? "required" : "",
    notes(schema.description, schema),
  ]);
}

/** The bodies of a request or a response: one line each for what is named, a table for what is not. */
function bodies(content = {}) {
  return Object.entries(content).flatMap(([mediaType, { schema = {} }]) => [
    element("p", {}, element("code", {}, mediaType), ": ", ...words(schema)),
    ...(schema.properties ? [table("Fields", ["field", "type", "", ""], fields(schema))] : []),
  ]);
}

function showOperation(operation) {
  const { method, path, anchor, summary, description, parameters, requestBody, responses = {} } = operation;
  const heading = element(
    "h3",
    {},
    element("a", { href: `#${anchor}` }, element("span", { class: "method" }, method.toUpperCase()), " ", path),
  );
  const section = element("section", { id: anchor, "data-testid": "operation", "aria-label": `${method} ${path}` }, heading);
  if (summary) section.append(element("p", {}, element("strong", {}, summary)));
  if (description) section.append(element("p", {}, description));
  if (parameters.length) {
    const rows = parameters.map(({ name, in: where, required, description: told, schema }) => [
      name,
      where,
      words(schema),
      required ? "required" : "",
      notes(told, schema),
    ]);
    section.append(
      element("h4", {}, "Parameters"),
      table("Parameters", ["name", "in", "type", "", ""], rows),
    );
  }
  if (requestBody) section.append(element("h4", {}, "Request"), ...bodies(requestBody.content));
  section.append(element("h4", {}, "Responses"));
  for (const [status, { description: told, content }] of Object.entries(responses)) {
    section.append(element("p", { "data-status": status }, element("strong", {}, status), ` ${told ?? ""}`), ...bodies(content));
  }
  return section;
}

function showSchema([name, schema]) {
  const section = element("section", { id: `schema-${slug(name)}`, "data-testid": "schema" });
  section.append(element("h3", {}, element("a", { href: `#schema-${slug(name)}` }, name)));
  if (schema.description) section.append(element("p", {}, schema.description));
  if (schema.properties) section.append(table(name, ["field", "type", "", ""], fields(schema)));
  else section.append(element("p", {}, ...words(schema)));
  return section;
}

function links(title, entries) {
  const items = entries.map(([anchor, text]) => element("li", {}, element("a", { href: `#${anchor}` }, text)));
  return [element("h2", {}, title), element("ul", {}, ...items)];
}

/** Fill the page from the document. */
function show(openapi) {
  const operations = operationsOf(openapi);
  const schemas = Object.entries(openapi.components?.schemas ?? {});
  const tags = [...new Set(operations.map(({ tag }) => tag))];
  $("title").textContent = [openapi.info?.title, openapi.info?.version].filter(Boolean).join(" ");
  $("about").textContent = openapi.info?.description ?? "";
  for (const tag of tags) {
    const tagged = operations.filter((operation) => operation.tag === tag);
    const entries = tagged.map(({ anchor, method, path }) => [anchor, `${method.toUpperCase()} ${path}`]);
    $("contents").append(...links(tag, entries));
    $("operations").append(element("h2", {}, tag), ...tagged.map(showOperation));
  }
  if (schemas.length) {
    $("contents").append(...links("Schemas", schemas.map(([name]) => [`schema-${slug(name)}`, name])));
    $("schemas").append(element("h2", {}, "Schemas"), ...schemas.map(showSchema));
  }
  $("operations").setAttribute("aria-busy", "false");
  const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView(); // the page was empty when the browser looked for it
}

async function start() {
  try {
    const response = await fetch("/api/v1/openapi.json");
    if (!response.ok) throw new Error(`/api/v1/openapi.json: ${response.status}`);
    show(await response.json());
  } catch (error) {
    $("failed").textContent = `The document cannot be shown: ${error.message}`;
    $("failed").hidden = false;
    $("operations").setAttribute("aria-busy", "false");
  }
}

start();

// Installs the packages of package.json into .rgrid-env beside it. Run by the interpreter of the job that needs them, in a directory
// of its own; what came of it is in .rgrid-result.json, and npm's exit code is this program's.
"use strict";
const fs = require("fs");
const path = require("path");
const { spawnSync } = require("child_process");

const env = path.resolve(".rgrid-env");
const end = (code, result) => {
  fs.writeFileSync(".rgrid-result.json", JSON.stringify(result));
  process.exit(code);
};

fs.mkdirSync(env);
for (const name of fs.readdirSync(".")) {
  if (!name.startsWith(".rgrid")) fs.cpSync(name, path.join(env, name), { recursive: true });
}
const locked = ["package-lock.json", "npm-shrinkwrap.json"].some((name) => fs.existsSync(name));
const options = ["--no-audit", "--no-fund", "--no-progress", "--no-update-notifier", "--loglevel=error"];
if (!("npm_config_cache" in process.env) && !("NPM_CONFIG_CACHE" in process.env)) {
  options.push("--cache", path.join(process.env.TMPDIR || "/tmp", "npm-cache"));
}
// What the project says of its registry counts, and what the worker's operator says in the environment does not.
const config = fs.existsSync(".npmrc") ? fs.readFileSync(".npmrc", "utf8") : "";
for (const [, name] of config.matchAll(/^\s*((?:@[^:=\s]+:)?registry)\s*=/gm)) {
  for (const known of Object.keys(process.env)) {
    if (known.toLowerCase() === "npm_config_" + name.toLowerCase()) delete process.env[known];
  }
}
const npm = spawnSync("npm", [locked ? "ci" : "install", ...options], { cwd: env, stdio: ["ignore", "inherit", "inherit"] });
if (npm.error) {
  if (npm.error.code === "ENOENT") end(1, { lacks: "npm" });
  end(1, { wrong: "npm could not be started: " + npm.error.message });
}
if (npm.status !== 0) end(npm.status === null ? 1 : npm.status, { by: "npm" });
// A package that needs nothing makes none, and the work directory is to have one all the same.
fs.mkdirSync(path.join(env, "node_modules"), { recursive: true });
fs.writeFileSync(path.join(env, ".rgrid.json"), "{}");
end(0, { by: "npm" });

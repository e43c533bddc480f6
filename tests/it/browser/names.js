// Short names for the scripts of the tests.
const $ = (css) => document.querySelector(css);
const $$ = (css) => [...document.querySelectorAll(css)];
const count = (css) => $$(css).length;
const texts = (css) => $$(css).map((node) => node.textContent);
const field = (label) => $$("input, textarea").find(({ labels }) => labels[0].textContent === label);
const description = (label) => document.getElementById(field(label).getAttribute("aria-describedby")).textContent;
const fact = (name) => $$("dt").find((dt) => dt.textContent === name).nextElementSibling.textContent;
const chip = () => $("[role=status]").textContent;
const banner = () => $("[role=alert]").textContent;

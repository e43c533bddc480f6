// What scripts of the tests can name.
const one = (css) => document.querySelector(css);
const all = (css) => [...document.querySelectorAll(css)];
const texts = (css) => all(css).map((node) => node.textContent);
const field = (label) => all("input, textarea").find(({ labels }) => labels[0].textContent === label);
const description = (label) => document.getElementById(field(label).getAttribute("aria-describedby")).textContent;
const fact = (name) => all("dt").find((dt) => dt.textContent === name).nextElementSibling.textContent;
const chip = () => one("[role=status]").textContent;
const banner = () => one("[role=alert]").textContent;

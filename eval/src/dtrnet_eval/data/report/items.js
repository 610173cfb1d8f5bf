// Shows the items of one task, of one model, or with a word in them. Without scripts all are shown.
const [task, right, text] = ['item-task', 'item-right', 'item-text'].map((id) => document.getElementById(id));
const items = [...document.querySelectorAll('details.item')];
const count = document.getElementById('item-count');
const told = count.textContent;

function matches(item, words) {
  return (!task.value || item.dataset.task === task.value)
    && (!right.value || item.dataset.right === right.value)
    && (!words || item.textContent.toLowerCase().includes(words));
}

function filter() {
  const words = text.value.toLowerCase();
  let shown = 0;
  for (const item of items) {
    item.hidden = !matches(item, words);
    shown += !item.hidden;
  }
  count.textContent = shown === items.length ? told : `${shown} shown, of ${told}`;
}

for (const control of [task, right, text]) control.addEventListener('input', filter);
document.querySelector('form.filter').addEventListener('submit', (event) => event.preventDefault());

// People: accounts, finding and connecting across backends, groups, devices.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { ALPHA, BETA, World } from './world.js';

let world;

before(async () => {
  world = await World.start();
});

after(() => world?.stop());

test('somebody registers with the mailed code, is found across backends, and connects', async () => {
  const ann = await world.person('Ann', ALPHA);
  const b = await world.window(BETA, { expected: [403, 404] });
  const email = 'cleo@example.com';
  await b.id('to-register').click();
  await b.id('register-email').fill(email);
  await b.id('register-send').click();
  await b.id('register-code').fill(await world.federation.activationCode(BETA, email));
  await b.id('register-name').fill('Cleo');
  await b.id('register-password').fill('a password of Cleo');
  await b.id('register-submit').click();
  await b.online();
  await b.id('nav-settings').click();
  await b.id('settings-handle').fill('cleo');
  await b.id('settings-save').click();
  await b.id('toast').waitFor();
  await b.id('settings-close').click();

  const a = await world.at(ann);
  await a.id('nav-people').click();
  await a.id('people-search').fill(`@cleo@${BETA}`);
  await a.id('people-search-submit').click();
  await a.sees('person', { status: 'none' });
  await a.id('person-connect').first().click();
  await b.sees('nav-people', { count: 1 });
  await b.id('nav-people').click();
  await b.find('person', { key: ann.key, status: 'pending' }).getByTestId('person-accept').click();
  await b.sees('person', { key: ann.key, status: 'accepted' });
  await a.sees('person', { status: 'accepted' });
  await a.id('person-open').first().click();
  await a.write('Hello Cleo');
  await b.id('person-open').first().click();
  await b.reads('Hello Cleo');

  // Out of the way, and back.
  await b.id('details-toggle').click();
  await b.id('block').click();
  await b.find('conversation', { name: 'Ann' }).waitFor({ state: 'detached' });
  await b.id('nav-people').click();
  await b.find('person', { key: ann.key, status: 'blocked' }).getByTestId('person-unblock').click();
  await b.sees('conversation', { name: 'Ann' });
  await Promise.all([a.close(), b.close()]);
});

test('a group across backends is made, named, joined, left and put away', async () => {
  const { ann, ben } = await world.pair('Begin');
  const cleo = await world.person('Cleo', BETA);
  await world.connect(ann, cleo);
  const [a, b, c] = await Promise.all([ann, ben, cleo].map(person => world.at(person, { expected: [403, 404] })));

  await a.id('new-group').click();
  await a.id('group-name').fill('Crew');
  await a.find('group-member', { key: ben.key }).check();
  await a.id('group-create').click();
  await a.id('composer-text').waitFor();
  await b.openConversation('Crew');
  await a.write('Only two of us');
  await b.reads('Only two of us');

  await a.id('details-toggle').click();
  await a.id('add-open').click();
  await a.find('add-member', { key: cleo.key }).check();
  await a.id('add-submit').click();
  await a.sees('member', { key: cleo.key });
  await c.openConversation('Crew');
  await a.id('rename').fill('Whole crew');
  await a.id('rename-submit').click();
  await Promise.all([b, c].map(window => window.sees('conversation', { name: 'Whole crew' })));
  await c.write('Hello all');
  await Promise.all([a, b].map(window => window.reads('Hello all')));
  assert.equal(await c.message('Only two of us').count(), 0);

  await a.find('member', { key: cleo.key }).getByTestId('member-remove').click();
  await c.id('composer-text').waitFor({ state: 'detached' });
  await b.find('details-toggle').click();
  await b.find('member', { key: cleo.key }).waitFor({ state: 'detached' });
  await b.id('mute').click();
  await b.id('archive').click();
  await b.find('conversation', { name: 'Whole crew' }).waitFor({ state: 'detached' });
  await b.id('archive-toggle').click();
  await b.sees('conversation', { name: 'Whole crew' });
  await b.id('leave').click();
  await b.id('confirm-yes').click();
  await b.id('composer-text').waitFor({ state: 'detached' });
  await a.find('member', { key: ben.key }).waitFor({ state: 'detached' });
  await Promise.all([a.close(), b.close(), c.close()]);
});

test('devices are listed, and one that is removed is logged out and begins anew', async () => {
  const { ann, ben } = await world.pair('Devices');
  const first = await world.at(ann, { expected: [401, 403, 404, 'away'] });
  const second = await world.at(ann);
  await second.id('nav-settings').click();
  await second.sees('device', { own: true });
  const removed = await second.find('device', { own: false }).getAttribute('data-device');
  const other = second.find('device', { device: removed });
  await other.getByTestId('device-remove').click();
  await other.getByTestId('device-password').fill(ann.password);
  await other.getByTestId('device-remove-submit').click();
  await other.waitFor({ state: 'detached' });
  await first.id('login').waitFor();
  await first.logIn(ann);
  await second.sees('device', { own: false });
  assert.notEqual(await second.find('device', { own: false }).getAttribute('data-device'), removed);
  await second.id('settings-close').click();

  // All devices read what is written to their owner, and what one of them writes.
  const b = await world.at(ben);
  await Promise.all([first, second, b].map(window => window.openConversation('Devices')));
  await b.write('to both devices');
  await Promise.all([first, second].map(window => window.reads('to both devices')));
  await first.write('from the first device');
  await Promise.all([second, b].map(window => window.reads('from the first device')));

  await second.id('nav-settings').click();
  await second.id('logout').click();
  await second.id('logout-forget').check();
  await second.id('logout-submit').click();
  await second.id('login').waitFor();
  assert.deepEqual(await second.page.evaluate(async () => (await indexedDB.databases()).map(({ name }) => name)), []);
  await Promise.all([first.close(), second.close(), b.close()]);
});

test('a wrong password is refused with a sentence', async () => {
  const ann = await world.person('Ann', ALPHA);
  const window = await world.window(ALPHA, { expected: [403] });
  await window.id('login-user').fill(ann.email);
  await window.id('login-password').fill('not the password');
  await window.id('login-submit').click();
  await window.id('form-error').waitFor();
  assert.match(await window.id('form-error').textContent(), /not right/);
  await window.close();
});

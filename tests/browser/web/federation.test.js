// What people see of a backend that is away, and of one that is cut off.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { ALPHA, BETA, World } from './world.js';

/** What the own backend answers while another one is away; 412 tells of devices that are new. */
const FAILURES = [400, 404, 412, 422, 500, 521, 525, 533];

let world;

before(async () => {
  world = await World.start();
});

after(() => world?.stop());

test('a backend that dies is waited for, and what was written arrives without a reload', async () => {
  const { ann, ben } = await world.pair('Away');
  await world.group('Kept at beta', ben, ann);
  const [a, b] = await Promise.all([
    world.at(ann, { expected: FAILURES }),
    world.at(ben, { expected: [...FAILURES, 'away'] }),
  ]);
  await Promise.all([a.openConversation('Away'), b.openConversation('Away')]);
  await b.write('I am here');
  await a.delivered(await a.write('All is well') && a.message('All is well'), BETA, 'read');
  const loads = [a.loads, b.loads];

  world.kill(BETA);
  await b.sees('link');
  await a.write('Are you still there?');
  const question = await a.reads('Are you still there?');
  await a.delivered(question, BETA, ['held', 'waiting']);
  assert.match(await a.find('delivery', { domain: BETA }, question).textContent(), /Waiting for beta\.test since \S/);
  await a.id('details-toggle').click();
  await a.sees('backend', { domain: BETA, state: 'unreachable', waiting: 1 });
  await a.sees('backend', { domain: ALPHA, state: 'reachable', waiting: 0 });
  await a.shoot('away');

  // A sentence for whoever looks there.
  await a.id('nav-people').click();
  await a.id('people-search').fill(`@somebody@${BETA}`);
  await a.id('people-search-submit').click();
  await a.id('people-error').waitFor();
  assert.match(await a.id('people-error').textContent(), /beta\.test does not answer/);

  // Whoever comes now sees that something is missing, and what.
  const late = await world.at(ann, { expected: FAILURES });
  await late.sees('conversation', { unavailable: true });

  world.revive(BETA);
  await a.openConversation('Away');
  await a.delivered(question, BETA, ['delivered', 'read']);
  await b.reads('Are you still there?');
  await b.online();
  await b.write('Back again');
  await a.reads('Back again');
  assert.deepEqual([a.loads, b.loads], loads);
  await a.id('details-toggle').click();
  await a.sees('backend', { domain: BETA, state: 'reachable', waiting: 0 });
  await late.sees('conversation', { name: 'Kept at beta', unavailable: false });
  await Promise.all([a.close(), b.close(), late.close()]);
});

test('a backend that an administrator suspends is told from one that is away, and messages wait for it', async () => {
  const { ann, ben } = await world.pair('Suspended');
  const [a, b] = await Promise.all([world.at(ann, { expected: FAILURES }), world.at(ben, { expected: FAILURES })]);
  await Promise.all([a.openConversation('Suspended'), b.openConversation('Suspended')]);
  await b.write('I am here');
  await a.reads('I am here');
  await a.delivered(await a.write('And I here') && a.message('And I here'), BETA, 'read');

  await world.administer(ALPHA, 'remote', 'suspend', BETA);
  await a.id('nav-people').click();
  const denied = async () => {
    await a.id('people-search').fill(`@${ben.handle}@${BETA}`);
    await a.id('people-search-submit').click();
    await a.page.locator('[data-testid="people-error"], [data-testid="person"]').first().waitFor();
    return (await a.id('people-error').count()) > 0;
  };
  while (!(await denied())) {
    await a.page.waitForTimeout(200);
  }
  assert.match(await a.id('people-error').textContent(), /does not exchange messages with beta\.test/);
  await a.openConversation('Suspended');
  await a.write('Said while suspended');
  await a.delivered(await a.reads('Said while suspended'), BETA, ['held', 'waiting', 'unsent']);
  await a.id('details-toggle').click();
  await a.sees('backend', { domain: BETA, state: ['unreachable', 'cut-off'] });

  await world.administer(ALPHA, 'remote', 'resume', BETA);
  await b.reads('Said while suspended');
  await a.delivered(a.message('Said while suspended'), BETA, ['delivered', 'read']);
  await Promise.all([a.close(), b.close()]);
});

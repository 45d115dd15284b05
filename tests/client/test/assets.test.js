// Files: encrypted, stored, fetched and decrypted by unmodified clients, between two backends.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Federation } from '../src/federation.js';
import { people } from '../src/people.js';

const OPTIONS = { timeout: 240_000 };
/** One that fits into a single message between backends, and one that does not. */
const SIZES = [10_000, 3_000_000];

let federation;

before(async () => {
  federation = await Federation.start();
}, OPTIONS);

after(() => federation?.stop(), OPTIONS);

test('a file goes from one backend to the other, inside a message', OPTIONS, async t => {
  const [ann, bob] = await people(t, federation, [
    ['Ann', 'alpha.test'],
    ['Bob', 'beta.test'],
  ]);
  const { conversation } = await ann.connectWith(bob);
  for (const [me, other] of [
    [ann, bob],
    [bob, ann],
  ]) {
    for (const size of SIZES) {
      const { asset, digest } = await me.worker.call('storeFile', { size });
      assert.equal(asset.domain, me.domain);
      const metaData = { length: size, name: 'picture.png', type: 'image/png' };
      const id = await me.tell(conversation, { kind: 'asset', asset, metaData });
      const { asset: told } = await other.payload(conversation, id);
      const { assetId: key, assetToken: token, assetDomain: domain, otrKey: keyBytes, sha256 } = told.uploaded;
      const received = { key, token, domain, keyBytes, sha256 };
      // Twice: from the owner, and from what is kept.
      for (const reader of [other, other, me]) {
        assert.deepEqual(await reader.worker.call('readFile', { asset: received }), { digest });
      }
      await assert.rejects(
        other.worker.call('readFile', { asset: { ...received, token: 'd3Jvbmc=' } }),
        // The client asks for bytes, and so does not see the label.
        error => error.status === 404,
      );
    }
  }
});

test('a file that a member could not fetch is refused before it is stored, if the app names the conversation', OPTIONS, async t => {
  const settings = '[assets]\nrefuse_early = true\n[assets.remote]\nmax_bytes = 100000\n';
  const strict = await Federation.start({ settings });
  t.after(() => strict.stop());
  const [ann, bob] = await people(t, strict, [
    ['Ann', 'alpha.test'],
    ['Bob', 'beta.test'],
  ]);
  const { conversation } = await ann.connectWith(bob);
  await assert.rejects(
    ann.worker.call('storeFile', { size: 200_000, conversation }),
    error => error.status === 403 || error.code === 403,
  );
  const { asset, digest } = await ann.worker.call('storeFile', { size: 50_000, conversation });
  assert.deepEqual(await bob.worker.call('readFile', { asset }), { digest });
  const { asset: large } = await ann.worker.call('storeFile', { size: 200_000 });
  await assert.rejects(bob.worker.call('readFile', { asset: large }), error => error.status === 403);
});

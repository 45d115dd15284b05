'use strict';

/** The old crypto library; the client uses core-crypto instead. */
class Cryptobox {
  constructor() {
    throw new Error('cryptobox is not available in these tests');
  }
}

module.exports = { Cryptobox };

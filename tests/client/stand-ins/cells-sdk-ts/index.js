'use strict';

/** A feature that these tests do not use. */
class NodeServiceApi {}

module.exports = { NodeServiceApi };

-- Whether edges come to the server's nginx by TLS: it was given a certificate for that. Once given, it stays; servers
-- whose agent is of before have none.
ALTER TABLE servers ADD COLUMN has_door BOOLEAN NOT NULL DEFAULT false;

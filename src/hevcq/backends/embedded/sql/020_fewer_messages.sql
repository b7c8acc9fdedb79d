DROP TABLE event_given_up;
ALTER TABLE event_reader DROP COLUMN off;
DROP TABLE history_month;

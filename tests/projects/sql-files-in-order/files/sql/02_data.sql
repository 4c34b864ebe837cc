insert into customer values (1, 'Lyon'), (2, 'Nantes'), (3, 'Lyon');
insert into bill values (1, 1000), (3, 250), (2, 700);
